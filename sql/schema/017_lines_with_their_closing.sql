-- Lines go in with their closing, in its transaction: nobody adds one to a closing that stands, not even the role that
-- may close. When a closing was written the database says, and no two transactions that matter begin in one microsecond.

CREATE FUNCTION reconciler.refuse_lines_of_other_closings() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF EXISTS (SELECT FROM added WHERE closing NOT IN (SELECT id FROM reconciler.closings WHERE closed_at = now())) THEN
    RAISE EXCEPTION 'lines are written with their closing, in its transaction: none is added to one that stands'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION reconciler.refuse_lines_of_other_closings() IS
    'Lines of a closing are written in its transaction: what it holds stays what it was.';

CREATE TRIGGER lines_with_their_closing AFTER INSERT ON reconciler.closed_lines
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse_lines_of_other_closings();
