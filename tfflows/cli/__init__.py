"""What the commands of `tfflows` do (the extra `tfflows[cli]`); their names and options are in `tfflows_cli`.

That module is outside the package, so that help comes at once: importing the package takes TensorFlow's seconds.
"""
