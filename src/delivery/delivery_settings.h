/*
 * delivery_settings.h
 *		Settings of delivery, kept by PostgreSQL's configuration machinery.
 */
#ifndef QM_DELIVERY_SETTINGS_H
#define QM_DELIVERY_SETTINGS_H

#include "postgres.h"

extern int delivery_claim_batch;  /* grants claimed in one transaction */
extern int delivery_retry_base;   /* milliseconds before the first retry */
extern int delivery_retry_max;    /* milliseconds: no retry waits longer */
extern int delivery_max_attempts; /* failed attempts after which a grant fails */

#endif /* QM_DELIVERY_SETTINGS_H */
