"""The page that shows runs and evaluations: lists, trees, credit, tokens and metrics."""
