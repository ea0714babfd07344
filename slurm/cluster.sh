# shellcheck shell=bash
# EDIT ME: what your cluster needs before Python can run. Sourced by every script here, on every node, in the
# repository's root. A line that fails stops the job with its message.

# Modules, if your site has them:
# load_modules cuda/12.4 gcc/12

# The Python with l2e in it. `make setup` makes .venv; conda users write `conda activate NAME` instead.
activate_venv "${L2E_VENV:-.venv}"

# The network between nodes, where NCCL or gloo pick the wrong interface (see `ip -brief address`):
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
# export NCCL_DEBUG=WARN

# Node-local scratch for what is cached, and no network on compute nodes:
# export HF_HOME=/scratch/$USER/huggingface
# export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
