"""Workers: the only room that knows Ray."""
