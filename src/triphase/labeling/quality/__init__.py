"""The reliability of labels: agreement, each labeler's record, and the statistics that show both."""
