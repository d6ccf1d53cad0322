"""The threads of a scheduler: each a loop of public cycles over what is held, none knowing AWS or HTTP."""
