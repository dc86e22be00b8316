-- Rows of version 8: an evaluation that is kept, and one that another has superseded.
INSERT INTO kept_evaluation SELECT min(id) FROM evaluation;
INSERT INTO withdrawn_evaluation SELECT min(id), NULL FROM evaluation;
