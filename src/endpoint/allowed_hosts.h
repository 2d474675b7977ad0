/*
 * allowed_hosts.h
 *		Where gateways may be: the setting quota_manager.allowed_hosts.
 *
 * An entry of the list is host, host:port, scheme://host or scheme://host:port,
 * and allows what it says: one that names a scheme without a port means the
 * scheme's own port, one without both any of either.
 */
#ifndef QM_ALLOWED_HOSTS_H
#define QM_ALLOWED_HOSTS_H

#include "postgres.h"

extern const char *base_url_problem(const char *url);
extern bool        address_is_listed(const char *address);
extern void        allowed_hosts_define_setting(void);

#endif /* QM_ALLOWED_HOSTS_H */
