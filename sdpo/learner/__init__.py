"""The DeepSpeed side: the policy, its optimizer, the teacher, and their checkpoints."""
