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

/*
 * What is wrong with a gateway's URL, its host included: a constant text;
 * NULL: nothing.
 */
extern const char *base_url_problem(const char *url);

/*
 * What is wrong with a list of hosts, and in which entry (its first byte and
 * its length); NULL: nothing.
 */
extern const char *hosts_problem(const char *list, const char **entry, int *length);

/*
 * True if the list in force names this address itself.  Reads the setting and
 * nothing more, so that it can be called while libcurl works.
 */
extern bool address_is_listed(const char *address);

#endif /* QM_HOSTS_H */
