/*
 * iso_time.h
 *		Times as text, read strictly.
 *
 * timestamptz_in depends on TimeZone and DateStyle and takes words such as
 * now; what is stored in conditions and settings must mean the same for
 * everyone.
 */
#ifndef QM_ISO_TIME_H
#define QM_ISO_TIME_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* Without a zone the time is refused; otherwise it is read as UTC. */
#define ISO_TIME_NEEDS_ZONE 0x01
/* An offset may be written without its minutes: +08. */
#define ISO_TIME_SHORT_OFFSET 0x02

extern int iso_time_read(const char *text, int flags, TimestampTz *result);

#endif /* QM_ISO_TIME_H */
