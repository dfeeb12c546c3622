"""The worker's side of the platform: the loop that takes calls and runs the handler.

Standard library and the `functionsplatform` package only; both are put into every worker.
Authors import nothing from here.
"""
