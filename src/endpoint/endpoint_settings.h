/*
 * endpoint_settings.h
 *		Settings about how gateways are reached.
 */
#ifndef QM_ENDPOINT_SETTINGS_H
#define QM_ENDPOINT_SETTINGS_H

#include "postgres.h"

/* quota_manager.linger: for so long a request whose answer was lost may still arrive. */
extern int endpoint_settle_delay_ms;

/* "": file: references cannot be used. */
extern char *endpoint_credential_directory;

extern void endpoint_define_settings(void);

#endif /* QM_ENDPOINT_SETTINGS_H */
