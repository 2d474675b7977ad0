/*
 * roster_report.c
 *		Of the launcher: tells people how databases are served.
 */
#include "postgres.h"

#include "worker/process.h"
#include "worker/roster.h"

/*
 * Says that databases take turns, once until they do not any more.
 */
static void
explain_turns(int served, int places)
{
	static bool said = false;

	if (served > places && !said)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d databases take turns in %d places for quota_manager workers", served,
						places),
				 errhint("For a place each set quota_manager.max_workers to %d or more, and allow "
						 "for them in max_worker_processes.",
						 served * 2)));
	said = served > places;
}

/*
 * Shows in pg_stat_activity how databases are served, and says in the log if
 * they take turns.  without_room: how many wait although there are places;
 * role_problem: why none is served, NULL: nothing.
 */
void
roster_report(int places, int without_room, const char *role_problem)
{
	char state[256];
	int  served = roster_served();

	explain_turns(served, places);
	if (!workers_setting)
		strlcpy(state, "waiting: quota_manager.workers is off", sizeof(state));
	else if (role_problem != NULL)
		snprintf(state, sizeof(state), "waiting: %s", role_problem);
	else if (served > places)
		snprintf(state, sizeof(state), "%d databases take turns in %d places", served, places);
	else if (without_room > 0)
		snprintf(state, sizeof(state), "%d served, %d waiting for room in max_worker_processes",
				 served, without_room);
	else
		snprintf(state, sizeof(state), "%d database%s served", served,
				 served == 1 ? " is" : "s are");
	/* Also if it is what it was: so it is seen when the launcher looked last. */
	report_idle(state);
}
