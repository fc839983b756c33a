/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings that mlockall(2) of the program neither fills nor locks.
 *
 * Under mlockall(MCL_FUTURE) a new mapping is locked: the kernel counts its whole length against
 * RLIMIT_MEMLOCK and reads every page of it. That fills the holes of a sparse heap's shelf, of the
 * lanes file and of the epoch slots with pages that nobody was granted. No flag of mmap(2) prevents
 * it. So a mapping begins as one page without access, which the kernel does not read; that page is
 * unlocked, and grows to the wanted length with mremap(2), which keeps it unlocked.
 *
 * mremap(2) replaces what is mapped at the target while it holds the process's mappings locked, as
 * mmap(2) with MAP_FIXED does. Other threads that read there wait, and find the old or the new.
 */
#include <errno.h>
#include <sys/mman.h>

#include "libclient/mapping.h"
#include "media/format.h"

void *mapping_new(void *at, size_t len, int prot, int flags, int fd)
{
	void *p = mmap(NULL, MEDIA_PAGE, PROT_NONE, flags, fd, 0), *q = MAP_FAILED;
	int error;

	if (p == MAP_FAILED)
		return p;
	if (munlock(p, MEDIA_PAGE) == 0 && mprotect(p, MEDIA_PAGE, prot) == 0)
		q = at ? mremap(p, MEDIA_PAGE, len, MREMAP_MAYMOVE | MREMAP_FIXED, at)
		       : mremap(p, MEDIA_PAGE, len, MREMAP_MAYMOVE);
	if (q == MAP_FAILED) {
		error = errno;
		munmap(p, MEDIA_PAGE);
		errno = error;
	}
	return q;
}
