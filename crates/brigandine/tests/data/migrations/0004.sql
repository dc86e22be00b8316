-- Rows of version 4: a wish that was answered, and inputs that were set back.
UPDATE specification SET look_wanted_at = 1700000600, look_answered_at = 1700000600, evaluation_id = 1 WHERE id = 1;
