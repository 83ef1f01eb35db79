"""How do groups become samples, updates and packed rows?"""
