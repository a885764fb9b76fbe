"""What studies, transfers and recipes share: splits, controls, the result table and its verdict."""
