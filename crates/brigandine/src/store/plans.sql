-- Statistics of a database with five million builds, as `ANALYZE` finds them; for `plans.rs`.
DELETE FROM sqlite_stat1;
INSERT INTO sqlite_stat1 VALUES
  ('build', 'build_derivation', '5000000 1'),
  ('build', 'build_ready', '150000 75000 75000 2 1'),
  ('build', 'build_unfinished', '10 10'),
  ('build', 'build_queue', '150000 75000 2'),
  ('build', 'build_latest', '4850000 2'),
  ('build', 'build_latest_of_specification', '4850000 1200000 2'),
  ('build', 'build_latest_of_evaluation', '4850000 2000 2'),
  ('build', 'build_latest_of_job', '4850000 1200000 40 1'),
  ('build', 'build_latest_for_system', '4850000 2400000 2'),
  ('build', 'build_latest_with_status', '4850000 1200000 2'),
  ('job', 'job', '5000000 2000 2 1'),
  ('job', 'job_by_build', '5000000 1 1'),
  ('output', 'output', '6500000 2 1'),
  ('attempt', 'attempt', '4850000 2 1'),
  ('definition', NULL, '5000000'),
  ('dependency', 'dependency', '9000000 3 1'),
  ('dependency', 'dependency_reverse', '9000000 3 1'),
  ('product', 'product_by_build', '1000000 2'),
  ('evaluation', 'evaluation_by_specification', '2500 600 1'),
  ('evaluation', 'evaluation_stamp', '2500 600 1'),
  ('checkout', 'checkout', '2500 1 1'),
  ('build_count', 'build_count', '60 9 3 1'),
  ('specification', 'specification_name', '4 1');
ANALYZE sqlite_schema;
