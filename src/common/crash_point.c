/*
 * crash_point.c
 *		Named places where a build for tests dies or stalls.
 *
 * No other build contains this file.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "common/string.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"

#include "common/crash_point.h"

/* Longest stall, and how often it is checked whether it is to end, in milliseconds. */
#define STALL_MAX_MS 60000
#define STALL_STEP_MS 5

typedef enum CrashAction
{
	CRASH_KILL,
	CRASH_STALL,
} CrashAction;

/* What a value of the setting means. */
typedef struct Arming
{
	CrashPoint  point; /* CRASH_POINT_COUNT: none */
	int         skip;
	CrashAction action;
} Arming;

#define CRASH_POINT_NAME(name) #name,
static const char *const point_names[] = {CRASH_POINT_LIST(CRASH_POINT_NAME)};

/* The settings. */
static char *crash_point_setting;
static char *crash_points_setting;

static Arming active = {CRASH_POINT_COUNT, 0, CRASH_KILL};
static int    passed; /* how often this process passed the active point */

/* Reads a value of the setting; false: it means nothing. */
static bool
read_arming(const char *text, Arming *result)
{
	size_t      length = strcspn(text, ":");
	const char *rest = text + length;
	char       *end;

	*result = (Arming){CRASH_POINT_COUNT, 0, CRASH_KILL};
	if (*text == '\0')
		return true;
	for (int i = 0; i < CRASH_POINT_COUNT; i++)
		if (strlen(point_names[i]) == length && strncmp(point_names[i], text, length) == 0)
			result->point = (CrashPoint) i;
	if (result->point == CRASH_POINT_COUNT)
		return false;
	if (*rest == '\0')
		return true;
	result->skip = strtoint(rest + 1, &end, 10);
	if (end == rest + 1 || result->skip < 0)
		return false;
	if (strcmp(end, ":stall") == 0)
		result->action = CRASH_STALL;
	else if (*end != '\0' && strcmp(end, ":kill") != 0)
		return false;
	return true;
}

/* Refuses an unknown name: a test that arms a point that is gone must not pass. */
static bool
check_crash_point(char **newval, void **extra, GucSource source)
{
	Arming arming;

	if (read_arming(*newval, &arming))
		return true;
	GUC_check_errdetail("Write name[:skip[:kill or stall]].");
	GUC_check_errhint("The names are in quota_manager.crash_points.");
	return false;
}

/* Arms the point, and counts from now on. */
static void
assign_crash_point(const char *newval, void *extra)
{
	(void) read_arming(newval, &active);
	passed = 0;
}

/* Registers the settings; called once by _PG_init. */
void
crash_point_define_settings(void)
{
	static StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < CRASH_POINT_COUNT; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? "," : "", point_names[i]);
	DefineCustomStringVariable(
		"quota_manager.crash_points", "Places where this build for tests can be made to die.", NULL,
		&crash_points_setting, names.data, PGC_INTERNAL, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"quota_manager.crash_point", "Place where this build for tests dies, once.",
		"name[:skip[:action]]; the action is kill or stall. Empty: none.", &crash_point_setting, "",
		PGC_SUSET, 0, check_crash_point, assign_crash_point, NULL);
}

/*
 * Makes the file that stands for a hit, in the data directory.  False: it is
 * there already, so another process was first.
 */
static bool
mark_hit(const char *path)
{
	char text[64];
	int  length;
	int  file = open(path, O_CREAT | O_EXCL | O_WRONLY, pg_file_create_mode);

	if (file < 0)
		return false;
	length = snprintf(text, sizeof(text), "%d\n", MyProcPid);
	if (write(file, text, length) != length)
		elog(PANIC, "could not write file \"%s\": %m", path);
	close(file);
	return true;
}

/*
 * Stays here until the file is removed, for a minute at most.  A process that is
 * asked to end meanwhile goes on, and ends where it always does.
 */
static void
stall(const char *path)
{
	for (int waited = 0; waited < STALL_MAX_MS; waited += STALL_STEP_MS)
	{
		if (access(path, F_OK) != 0 || InterruptPending || !PostmasterIsAlive())
			return;
		pg_usleep(STALL_STEP_MS * 1000L);
	}
}

/*
 * Kills or stalls the process if the point is active.  May be called with or
 * without a transaction.
 */
void
crash_point_reached(CrashPoint point)
{
	char path[MAXPGPATH];

	if (point != active.point || passed++ < active.skip)
		return;
	snprintf(path, sizeof(path), "quota_manager.crash_point.%s", point_names[point]);
	if (!mark_hit(path))
		return;
	if (active.action == CRASH_STALL)
	{
		active.point = CRASH_POINT_COUNT;
		stall(path);
		return;
	}
	/* no exit handler of the process runs */
	kill(MyProcPid, SIGKILL);
	for (;;)
		pause();
}
