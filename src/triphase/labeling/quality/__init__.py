"""How far labels can be trusted: agreement, each labeler's record, and the statistics that show both."""
