/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Boost.Interprocess for the workers, as its users write it: one managed_mapped_file with the default
 * algorithm (rbtree_best_fit under a mutex that processes share). Exceptions end here.
 */
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <new>

#include <boost/interprocess/managed_mapped_file.hpp>

extern "C" {
int boost_open(const char *path, uint64_t bytes);
void boost_close(void);
void *boost_new(size_t size);
void boost_free(void *p);
char *boost_base(void);
}

using namespace boost::interprocess;

static managed_mapped_file *file;

int boost_open(const char *path, uint64_t bytes)
{
	try {
		if (bytes > 0)
			file = new managed_mapped_file(create_only, path, bytes);
		else
			file = new managed_mapped_file(open_only, path);
		return 0;
	} catch (const std::exception &e) {
		std::fprintf(stderr, "%s: %s\n", path, e.what());
		return -1;
	}
}

void boost_close(void)
{
	delete file;
	file = nullptr;
}

void *boost_new(size_t size)
{
	return file->allocate(size, std::nothrow);
}

void boost_free(void *p)
{
	file->deallocate(p);
}

char *boost_base(void)
{
	return static_cast<char *>(file->get_address());
}
