/*
 * shift.c
 *		Preloaded into a server, shifts its wall clock by as many microseconds
 *		as the file holds that QUOTA_TEST_CLOCK names.
 *
 * The file is mapped, so all processes jump at once when a test writes to it.
 * Clocks that measure durations go on as they are.
 */
#define _GNU_SOURCE

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define SECOND 1000000

EXPORT int    clock_gettime(clockid_t id, struct timespec *result);
EXPORT int    gettimeofday(struct timeval *restrict result, void *restrict zone);
EXPORT time_t time(time_t *result);

static volatile const int64_t *shift = NULL;

/*
 * Maps the file, whose absence leaves the clock alone.
 */
__attribute__((constructor)) static void
map_shift(void)
{
	const char *path = getenv("QUOTA_TEST_CLOCK");
	int         file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void       *page;

	if (file < 0)
		return;
	page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
	close(file);
	if (page != MAP_FAILED)
		shift = page;
}

/*
 * The clock as the kernel has it, not by way of functions that are replaced
 * here, shifted if it is one of the wall.
 */
EXPORT int
clock_gettime(clockid_t id, struct timespec *result)
{
	int code = (int) syscall(SYS_clock_gettime, id, result);

	if (code == 0 && shift != NULL && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
	{
		int64_t micros = *shift + result->tv_nsec / 1000 % SECOND;
		int64_t seconds = micros / SECOND;

		micros %= SECOND;
		if (micros < 0)
		{
			micros += SECOND;
			seconds--;
		}
		result->tv_sec += seconds;
		result->tv_nsec = micros * 1000 + result->tv_nsec % 1000;
	}
	return code;
}

EXPORT int
gettimeofday(struct timeval *restrict result, void *restrict zone)
{
	struct timespec now;

	(void) zone;
	(void) clock_gettime(CLOCK_REALTIME, &now);
	result->tv_sec = now.tv_sec;
	result->tv_usec = now.tv_nsec / 1000;
	return 0;
}

EXPORT time_t
time(time_t *result)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_REALTIME, &now);
	if (result != NULL)
		*result = now.tv_sec;
	return now.tv_sec;
}
