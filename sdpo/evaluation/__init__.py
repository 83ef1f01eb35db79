"""How good is the policy on tasks it never learned from, and how much better is its teacher?"""
