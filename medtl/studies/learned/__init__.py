"""Is it learning, and is it learning the right thing?"""
