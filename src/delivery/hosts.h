/*
 * hosts.h
 *		Where gateways may be: the setting quota_manager.allowed_hosts.
 */
#ifndef QM_HOSTS_H
#define QM_HOSTS_H

/*
 * What is wrong with a gateway's URL, its host included: a constant text;
 * NULL: nothing.
 */
extern const char *base_url_problem(const char *url);

#endif /* QM_HOSTS_H */
