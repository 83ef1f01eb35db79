"""What is minimised. Pure mathematics on tensors; sums come out, the caller owns the denominator."""
