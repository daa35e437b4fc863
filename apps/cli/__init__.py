"""The command `inr`: one file a verb."""
