"""The formulas of the papers and of their authors' code, written once more in fp64, one file a topic, each with its tests.

The functions take numbers and tensors and return sums. They share nothing with ``sdpo.objectives``: no import, no chunk, no
gradient by hand. The tests beside them compare values and gradients.
"""
