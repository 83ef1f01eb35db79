"""Which tasks are asked, and how are they attempted: in one turn or several, ahead of the learner or not?"""
