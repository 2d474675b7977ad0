/*
 * admit.h
 *		Third phase of a scan: which of the users found are granted.
 *
 * The ids of a spool are merged, in order, with the grants that there are.
 * The statements are ours and run with the rights of the current user, who
 * must be the owner; they read in the snapshot of their own begin.
 */
#ifndef QM_ADMIT_H
#define QM_ADMIT_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "scan/spool.h"

typedef enum Verdict
{
	VERDICT_ADMITTED,
	VERDICT_GRANTED, /* has the grant already */
	VERDICT_CAPPED,  /* has reached max_exec_per_user */
} Verdict;

typedef struct AdmissionRule
{
	int32       strategy_id;
	TimestampTz firing; /* -infinity: a single strategy */
	int32       cap;    /* most grants per user in total; 0: no limit */
	bool        anew;   /* there are no grants of this firing, and no cap: nothing is looked up */
} AdmissionRule;

typedef struct Admission Admission;

extern Admission *admission_begin(Spool *spool, const AdmissionRule *rule);
extern text      *admission_next(Admission *admission, Verdict *verdict);
extern void       admission_end(Admission *admission);

#endif /* QM_ADMIT_H */
