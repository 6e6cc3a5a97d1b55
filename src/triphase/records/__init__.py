"""What people and files say: plain records. Imports no torch and nothing of ours but the errors."""
