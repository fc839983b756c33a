/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The public header as strict C++, used as a C++ program would.
 */
#include <nvmm/client.h>

#include <string>

/* The predecessor's namespace: the header leaves the name to it. */
namespace nvmm {
class MemoryManager;
}

int main()
{
	struct nvmm_client *nvmm = nullptr;
	nvmm_options options = {};
	std::string text;

	options.size = sizeof(options);
	options.socket = "/nonexistent/nvmmd.sock";
	options.timeout_ms = 100;
	if (nvmm_connect(&nvmm, &options) >= 0)
		return 1;
	text = nvmm_errmsg(nullptr);
	return text.empty() || nvmm != nullptr || nvmm_ptr_pool(NVMM_NULL) != 0 ? 1 : 0;
}
