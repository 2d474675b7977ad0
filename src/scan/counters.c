/*
 * counters.c
 *		What one scan met, counted while its INSERT ... SELECT runs.
 *
 * Counting in the same pass costs a function call per matching user; a second
 * query would double the work.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"

#include "common/crash_point.h"

PG_FUNCTION_INFO_V1(qm_scan_begin);
PG_FUNCTION_INFO_V1(qm_scan_admit);
PG_FUNCTION_INFO_V1(qm_scan_counts);

/* Of the scan of one strategy by this process; scans do not nest. */
static int64 matched;
static int64 already_granted;
static int64 capped;

/*
 * scan_begin(): starts counting from zero.
 */
Datum
qm_scan_begin(PG_FUNCTION_ARGS)
{
	matched = already_granted = capped = 0;
	PG_RETURN_VOID();
}

/*
 * scan_admit(granted, capped): counts a user who met the condition and tells
 * whether a grant is to be written.
 */
Datum
qm_scan_admit(PG_FUNCTION_ARGS)
{
	matched++;
	if (PG_GETARG_BOOL(0))
	{
		already_granted++;
		PG_RETURN_BOOL(false);
	}
	if (PG_GETARG_BOOL(1))
	{
		capped++;
		PG_RETURN_BOOL(false);
	}
	CRASH_POINT(scan_admitting);
	PG_RETURN_BOOL(true);
}

/*
 * scan_counts(): what was counted since scan_begin().
 */
Datum
qm_scan_counts(PG_FUNCTION_ARGS)
{
	TupleDesc descriptor;
	Datum     values[] = {Int64GetDatum(matched), Int64GetDatum(already_granted),
						  Int64GetDatum(capped)};
	bool      nulls[] = {false, false, false};

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	CRASH_POINT(scan_granted);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}
