"""The work of people: accounts and invitations, assignments, submitted rankings, decided conflicts, and the audit."""
