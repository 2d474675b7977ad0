/*
 * role_danger.h
 *		Roles that are superusers, or can become one.
 *
 * Conditions and user sources are code of others, which runs as the role that
 * scans: it must not be one of these.
 */
#ifndef QM_ROLE_DANGER_H
#define QM_ROLE_DANGER_H

#include "postgres.h"

extern char *role_danger(Oid role);

#endif /* QM_ROLE_DANGER_H */
