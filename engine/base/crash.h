/* crash.h - named places where a test may kill the process, as kill -9 would.
 *
 *   KB_CRASH_AT=after-apply-before-ack      the first time that it gets there
 *   KB_CRASH_AT=after-apply-before-ack:7    the seventh time
 *
 * Only in builds with test hooks; elsewhere it is nothing at all. Any thread may pass.
 */
#ifndef CRASH_H
#define CRASH_H

#ifdef KB_TEST_HOOKS
void crash_point(const char *name);
#else
#define crash_point(name) ((void)0)
#endif

#endif
