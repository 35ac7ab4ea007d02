"""The page of ``radiffuse view``: a server for one user on one computer, and its front end in ``static``."""
