/*
 * suggest.c
 *		The name that was probably meant.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "condition/condition.h"
#include "condition/names.h"

/* Edits beyond which two names are not alike. */
#define SUGGEST_MAX_DISTANCE 3

/*
 * The condition function name nearest to one that does not exist; NULL: none
 * is near.
 */
char *
condition_suggest(const char *name)
{
	Relation    proc;
	SysScanDesc scan;
	HeapTuple   tuple;
	int         length = (int) strlen(name);
	int         best = Min(SUGGEST_MAX_DISTANCE, length / 2) + 1;
	char       *result = NULL;

	if (length >= NAMEDATALEN)
		return NULL;
	proc = table_open(ProcedureRelationId, AccessShareLock);
	{
		ScanKeyData key;

		ScanKeyInit(&key, Anum_pg_proc_pronamespace, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(get_namespace_oid(CONDITION_SCHEMA, false)));
		scan = systable_beginscan(proc, InvalidOid, false, NULL, 1, &key);
	}
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		char *candidate =
			condition_name_of_function(NameStr(((Form_pg_proc) GETSTRUCT(tuple))->proname));
		int distance = varstr_levenshtein_less_equal(name, length, candidate,
													 (int) strlen(candidate), 1, 1, 1, best, true);

		/* Ties go to the first in the alphabet, so that the answer does not depend on the heap. */
		if (distance < best || (result && distance == best && strcmp(candidate, result) < 0))
		{
			best = distance;
			result = candidate;
		}
	}
	systable_endscan(scan);
	table_close(proc, AccessShareLock);
	return result;
}
