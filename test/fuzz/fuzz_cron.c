/*
 * fuzz_cron.c
 *		A target of libFuzzer: any text as a schedule.
 *
 * The first byte chooses a day from which on firings are computed.  A schedule
 * has a canonical text, which fires the same and is described the same; the next,
 * the last and the number of its local times agree.
 */
#include "server.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "schedule/cron.h"
#include "schedule/local_time.h"

/* A schedule comes by within so many days, if it comes at all. */
#define DAYS 11700

extern Datum qm_describe(PG_FUNCTION_ARGS);

/* What qm_describe reads its schedule with. */
void
cron_read(const char *expr, CronSchedule *schedule)
{
	CronError error = {0};

	REQUIRE(cron_parse(expr, schedule, &error) != NULL);
}

static char *
described(const char *expr)
{
	LOCAL_FCINFO(fcinfo, 1);

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(cstring_to_text_with_len(expr, (int) strlen(expr)));
	fcinfo->args[0].isnull = false;
	return text_to_cstring((text *) DatumGetPointer(qm_describe(fcinfo)));
}

/* Checks the local times of a schedule from a day on. */
static void
check_local_times(const CronSchedule *schedule, int64 day)
{
	int64 low = day * SECS_PER_DAY;
	int64 local;
	int64 last;
	int64 count = 0;

	if (!cron_next_local(schedule, low, day + DAYS, &local))
	{
		REQUIRE(cron_count_local(schedule, low, (day + DAYS) * SECS_PER_DAY) == 0);
		return;
	}
	REQUIRE(local >= low && local < (day + DAYS) * SECS_PER_DAY);
	REQUIRE(cron_last_local(schedule, low, local + 1, &last) && last == local);
	REQUIRE(!cron_last_local(schedule, low, local, &last));
	low = local;
	for (count = 1; count < 10; count++)
	{
		if (!cron_next_local(schedule, local + 1, day + DAYS, &last))
			break;
		REQUIRE(last > local);
		local = last;
	}
	REQUIRE(cron_count_local(schedule, low, local + 1) == count);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CronSchedule schedule = {0};
	CronSchedule again = {0};
	CronError    error = {0};
	char        *text;
	char        *canonical;

	if (size < 1)
		return 0;
	text = server_text(data + 1, size - 1);
	canonical = cron_parse(text, &schedule, &error);
	if (canonical == NULL)
		REQUIRE(error.sqlstate != 0 && error.message != NULL);
	else
	{
		char *second = cron_parse(canonical, &again, &error);

		REQUIRE(strlen(canonical) <= strlen(text));
		REQUIRE(second != NULL && strcmp(second, canonical) == 0);
		REQUIRE(memcmp(schedule.values, again.values, sizeof(schedule.values)) == 0);
		REQUIRE(strcmp(described(text), described(canonical)) == 0);
		check_local_times(&schedule, 100 * (int64) data[0]);
	}
	server_reset();
	return 0;
}
