"""Manifests of KubeRay from the config of ``sdpo train``, and what a pod does before it ends."""
