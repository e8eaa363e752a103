"""Events and commands, written once; the broker is a setting."""
