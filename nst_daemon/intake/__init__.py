"""What is in the inbox, and is it ready?"""
