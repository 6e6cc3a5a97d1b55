"""What people do: accounts and invitations, assignments, rankings handed in, conflicts decided, and the audit trail."""
