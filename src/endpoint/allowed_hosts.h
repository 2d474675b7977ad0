/*
 * allowed_hosts.h
 *		Where gateways may be: the setting quota_manager.allowed_hosts.
 *
 * An entry of the list is host, host:port, scheme://host or scheme://host:port,
 * and allows what it says: one that names a scheme without a port means the
 * scheme's own port, one without both any of either.
 */
#ifndef QM_HOSTS_H
#define QM_HOSTS_H

#include "postgres.h"

#include "utils/guc.h"

extern const char *base_url_problem(const char *url);
extern bool        address_is_listed(const char *address);

/* Hooks of the setting, which keep the list as it was read. */
extern bool allowed_hosts_check(char **newval, void **extra, GucSource source);
extern void allowed_hosts_assign(const char *newval, void *extra);

#endif /* QM_HOSTS_H */
