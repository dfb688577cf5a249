"""The fastest configuration of an artifact on this machine that stays inside an accuracy limit."""
