"""From a scan to a mask in the scan's own geometry."""
