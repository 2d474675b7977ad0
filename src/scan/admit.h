/*
 * admit.h
 *		Third phase of a scan: which of the users found are granted, and how much.
 *
 * Where a ceiling leaves too little room, users are admitted in the order of
 * their ids up to the first whose grant does not fit; that one and all after it
 * are over the ceiling.
 *
 * The ids of a spool are merged, in order, with the grants that there are.
 * The statements are ours and run with the rights of the current user, who
 * must be the owner; they read in the snapshot of their own begin, unless the
 * rule says otherwise.
 */
#ifndef QM_ADMIT_H
#define QM_ADMIT_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "scan/allowance.h"
#include "scan/spool.h"

typedef enum Verdict
{
	VERDICT_ADMITTED,
	VERDICT_GRANTED,      /* has the grant already */
	VERDICT_CAPPED,       /* has reached max_exec_per_user */
	VERDICT_SUFFICIENT,   /* has the balance of the allowance already */
	VERDICT_OVER_CEILING, /* would be admitted, but a ceiling is reached */
	VERDICT_UNKNOWN,      /* may be admitted: a balance is missing that decides */
} Verdict;

#define VERDICTS (VERDICT_UNKNOWN + 1)

/* How much may be granted before a ceiling is reached. */
typedef struct GrantRoom
{
	int64 grants; /* PG_INT64_MAX: any number */
	bool  has_amount;
	Datum amount; /* numeric: of the amounts without their signs */
} GrantRoom;

typedef struct AdmissionRule
{
	int32       strategy_id;
	TimestampTz firing;  /* -infinity: a single strategy */
	int32       cap;     /* most grants per user in total; 0: no limit */
	bool        anew;    /* there are no grants of this firing, and no cap: nothing is looked up */
	bool        unknown; /* the spool is of users whose balances are missing */
	bool        only_reads;     /* in the active snapshot, which may be that of a standby */
	Datum       amount;         /* numeric: of each grant, unless the allowance asks for balances */
	const Allowance *allowance; /* NULL: add */
	const GrantRoom *room;      /* NULL: there are no ceilings */
} AdmissionRule;

/* A user of the spool. */
typedef struct AdmittedUser
{
	text   *id;
	Verdict verdict;
	Datum   amount; /* numeric, where the verdict is admitted or over_ceiling */
	int64   had;    /* grants that the cap counts; 0 if there is no cap */
} AdmittedUser;

/* What was read of the spool so far. */
typedef struct AdmissionCounts
{
	int64 of[VERDICTS];
	Datum amount;    /* numeric: of those admitted */
	Datum magnitude; /* the same without signs */
} AdmissionCounts;

typedef struct Admission Admission;

extern const char     *verdict_name(Verdict verdict);
extern Admission      *admission_begin(Spool *spool, const AdmissionRule *rule);
extern bool            admission_next(Admission *admission, AdmittedUser *user);
extern AdmissionCounts admission_end(Admission *admission);

#endif /* QM_ADMIT_H */
