"""Which attempt gets which privileged text, and in which words does the teacher see it?"""
