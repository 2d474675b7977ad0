/*
 * crash_point.h
 *		Named places where a build for tests dies or stalls.
 *
 * Only with CRASH_POINTS defined (make CRASH_POINTS=1).  In every other build
 * the macro below is nothing, and no setting, symbol or text of this is left.
 *
 * quota_manager.crash_point = 'name[:skip[:action]]' arms one of them: the
 * process that passes it for the time after `skip` others (0) dies by kill -9,
 * or, if the action is stall, stays where it is.  It strikes once in the life
 * of a data directory, since PostgreSQL starts everything again after a kill
 * -9: a file quota_manager.crash_point.NAME is made there before, so a test sees
 * that it was hit.  Removing the file ends a stall (so does a minute), and arms
 * the point again for all other processes.
 */
#ifndef QM_CRASH_POINT_H
#define QM_CRASH_POINT_H

#ifdef CRASH_POINTS

/* In the order of a grant's life. */
#define CRASH_POINT_LIST(POINT)                                                                    \
	/* scheduler: balances that conditions ask for */                                              \
	POINT(balance_read)     /* an answer was taken in */                                           \
	POINT(balances_writing) /* written, not committed */                                           \
	POINT(balances_written) /* committed, the scan has not begun */                                \
	/* scheduler: the scan's transaction */                                                        \
	POINT(scan_starting)   /* not begun */                                                         \
	POINT(scan_admitting)  /* in the INSERT, for each user who is granted */                       \
	POINT(scan_granted)    /* grants written, the run not recorded */                              \
	POINT(scan_committing) /* all written, not committed */                                        \
	POINT(scan_committed)  /* committed, the delivery worker not woken */                          \
	/* scheduler: reversals that have waited */                                                    \
	POINT(reversal_committing) /* continued, not committed */                                      \
	POINT(reversal_committed)  /* committed, the delivery worker not woken */                      \
	/* delivery: becoming the sender */                                                            \
	POINT(lock_taken)      /* orphaned claims are not read yet */                                  \
	POINT(orphans_settled) /* they are in doubt, not committed */                                  \
	/* delivery: claiming and sending */                                                           \
	POINT(claim_starting)  /* candidates known, not claimed */                                     \
	POINT(claim_made)      /* claimed, not committed */                                            \
	POINT(claim_committed) /* for each grant claimed: committed, not sent */                       \
	POINT(grant_resending) /* for each grant in doubt about to be sent again */                    \
	POINT(grant_sent)      /* for each grant given to libcurl */                                   \
	POINT(answer_taken)    /* for each answer to a grant: taken in, not settled */                 \
	/* delivery: reconciling */                                                                    \
	POINT(before_read)      /* a balance before was taken in */                                    \
	POINT(before_recording) /* such balances are written, not committed */                         \
	POINT(before_recorded)  /* committed, their grants not sent */                                 \
	POINT(evidence_read)    /* a balance after was taken in, its evidence not settled */           \
	/* delivery: settling */                                                                       \
	POINT(settle_starting)  /* verdicts known, none written */                                     \
	POINT(settle_made)      /* written, not committed */                                           \
	POINT(settle_committed) /* committed, still in memory */                                       \
	POINT(run_closing)      /* a run marked delivered, not committed */                            \
	/* delivery: the gateway's state */                                                            \
	POINT(state_saved)           /* written, not committed */                                      \
	POINT(health_check_sent)     /* a query was given to libcurl */                                \
	POINT(health_check_answered) /* its answer taken in, the circuit not moved */                  \
	/* delivery: stopping */                                                                       \
	POINT(winding_down) /* what was not sent goes back, not settled */                             \
	POINT(wound_down)   /* what is in flight was given up, not settled */                          \
	/* bulk calls by hand */                                                                       \
	POINT(bulk_written)  /* the rows are committed, nothing is marked */                           \
	POINT(bulk_marked)   /* a batch is marked, committed, not sent */                              \
	POINT(bulk_sent)     /* for each request given to libcurl */                                   \
	POINT(bulk_answered) /* for each answer: taken in, not written */                              \
	POINT(bulk_recorded) /* the outcomes of a batch are committed */

#define CRASH_POINT_ENUMERATOR(name) CRASH_POINT_##name,
typedef enum CrashPoint
{
	CRASH_POINT_LIST(CRASH_POINT_ENUMERATOR) CRASH_POINT_COUNT
} CrashPoint;

extern void crash_point_define_settings(void);
extern void crash_point_reached(CrashPoint point);

#define CRASH_POINT(name) crash_point_reached(CRASH_POINT_##name)

#else

#define CRASH_POINT(name) ((void) 0)

#endif /* CRASH_POINTS */

#endif /* QM_CRASH_POINT_H */
