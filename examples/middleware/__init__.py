"""What goes around handlers, over what they send, and under all bodies. See docs/middleware.md.

python -m examples.middleware      all three, on the broker of the environment
"""
