"""The planner: what is trained on these data, on this machine and in this time, each decision with its reason.

plan_training   from the settings of a command to its plan: asks the others, once, before anything is prepared
search          the decision, a pure function: the first grid, patch and network that memory and time allow
grids           which grids are tried, by what each allows a perfect network
capacities      families of networks, and what each is worth training on
configuration   what is asked, what is tried and what is decided
machine         the machine, and how long steps take on it
measuring       a few real steps, timed
larger_batch    more images per step, where a card takes them in hardly more time
reasons         why, in words
plan_text       a plan as tables for a person
"""
