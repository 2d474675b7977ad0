/*
 * mock_control.h
 *		The operator interface of aigateway-mock (its README.md lists the paths).
 */
#ifndef MOCK_CONTROL_H
#define MOCK_CONTROL_H

/*
 * Calls a path under /mock/; with a form it is a POST.  A check fails if the
 * answer is not 200.  The text is valid until the next call.
 */
extern const char *mock_do(const char *base_url, const char *path, const char *form);

/* How many changes the mock has applied. */
extern int mock_applied(const char *base_url);

/* The same, as soon as there are that many; after some seconds in any case. */
extern int mock_wait_applied(const char *base_url, int count);

#endif /* MOCK_CONTROL_H */
